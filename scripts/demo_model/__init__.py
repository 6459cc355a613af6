"""Parts of the trainer of the embedded model: corpus, network, training, export. Run through `train_demo_model.py`."""
