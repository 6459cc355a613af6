"""The documentation's machinery: pages whose code is run, notebooks as pages, and `llms.txt`."""
