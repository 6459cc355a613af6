"""The cards of the two scorers, to be filled in."""

SENTIMENT = """# The shipped sentiment scorer

The probability that a text is a positive film review: a linear model on hashed n-grams of 1 to {longest} words and
pieces of words ({pieces} characters), {buckets} buckets, int8 weights, {kilobytes} kB. Formula: `HashedNgramScorer` in
`steerlens/experiments/shared/scorers.py`.

- **Data**: the training labels of the Large Movie Review Dataset (IMDb; Maas et al. 2011), {reviews} reviews once
  duplicates are dropped; whole, and {each} windows of {shortest} to {widest} words of each. The data set was
  released to the public by its authors without a licence text; the weights are numbers by hash, none of its text.
- **Licence** of the weights: MIT, as the package.
- **Command**: `python scripts/train_scorers.py sentiment --data DATA` ({seconds} s on one core). Settings were
  chosen on a tenth of the training reviews (`--choose`).
- **Settings**: {settings}.

## Held-out accuracy

On the test split, whose films do not occur in training, decided at one half; 95 % Wilson intervals.

| texts | n | accuracy |
|---|---|---|
{table}

A short text has the label of the review that it was cut from: a plot summary counts as praise if the review was kind,
and no reader could tell. The limit for short texts is therefore well below 100 %.

## What it cannot do

It knows words, not sense: irony, "not as bad as", and quotations of others mislead it. On texts that are no film
reviews it still answers, with no claim to be right. Read it beside disfluency: broken text has a score too.
"""

TOXICITY = """# The shipped toxicity scorer

The probability that a text is toxic: a linear model on hashed words and pieces of words ({pieces} characters),
{buckets} buckets, int8 weights, {kilobytes} kB.
Formula: `HashedNgramScorer` in `steerlens/experiments/shared/scorers.py`.

- **Data**: four fifths of the tweets of Davidson et al. 2017 (MIT; hate or offensive against neither, both with equal
  weight; users, links and retweet marks removed), {tweets} tweets; and half of a subset of RealToxicityPrompts
  (Gehman et al. 2020, Apache-2.0), {prose} prompts and continuations with their Perspective scores as soft labels.
  Slope and offset of the log-odds were fitted to a part of that half that a trial scorer had not seen.
- **Licence** of the weights: MIT, as the package.
- **Command**: `python scripts/train_scorers.py toxicity --data DATA` ({seconds} s on one core). Settings were
  chosen on a part of the training half (`--choose`).
- **Settings**: {settings}.

## Held-out quality

On the other half of RealToxicityPrompts and the other fifth of the tweets, never seen in training. Toxic means a
Perspective score of at least 0.5, or a tweet of the classes hate and offensive; intervals are 95 % (bootstrap for the
area under the ROC curve, Wilson for the accuracy at one half).

| texts | n | toxic | AUC | accuracy |
|---|---|---|---|---|
{table}

Mean distance from the Perspective score, prompts and continuations: {error}.

## What it cannot do

It knows words, not sense, and mostly the words of its sources: insults without a bad word pass, harmless uses of one
do not. The tweets were collected by a list of slurs, many from African American English, and their labels carry the
biases of those who gave them (Sap et al. 2019): text in that dialect, and text that names a group, scores too high.
Nearly half of the prose it learned from is toxic, and its probabilities are those of such a population: a harmless
sentence may get one half. Use it to compare conditions of one experiment, never to judge a person.
"""
