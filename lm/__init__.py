"""How well a language model predicts a codec's tokens; arrays in, numbers out: it knows neither codecs nor datasets.

orderings   codes as a grid of steps: all codebooks of a frame at once, delayed, or one token after another
packing     documents packed into rows of one length, memory-mapped
model       the language model
protocol    model, optimiser and budget as YAML: `paper`, `quick`
training    the loop: devices, checkpoints, exact resume
evaluation  from log-likelihoods of documents to perplexities and bits
ngram       the estimate that takes seconds, beside it
"""
