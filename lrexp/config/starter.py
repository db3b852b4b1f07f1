"""The commented config that `lrexp init` writes; it runs as it is."""

from __future__ import annotations

STARTER = """\
# An experiment of lrexp: one model, one dataset, and the settings that are compared.
#
#   lrexp compare THIS_FILE     train every variant and rank them
#   lrexp find-lr THIS_FILE     suggest a learning rate
#   lrexp schedule THIS_FILE    draw the learning rates without training
#   lrexp validate THIS_FILE    check the file and print it complete
#
# Everything that is commented out shows its default.

name: digits-lr           # part of the names of run folders
# seed: 0                 # the first seed; further ones are seed+1, seed+2, ...
# device: auto            # auto | cpu | cuda | cuda:N | mps
# precision: fp32         # fp32 | fp64 | bf16
# engine: auto            # how trials are trained; never changes what they give

# linear | mlp | regression_net | cnn | gpt, a torchvision model such as resnet18,
# or your own beside this file: my_model:make_model
model:
  name: mlp
  args: {hidden: [64, 64]}  # may use facts of the data: $num_classes, $in_features, ...

# digits | diabetes | breast_cancer | linear | sine | spirals | text | csv,
# a torchvision dataset such as FashionMNIST, or your own: my_data:load
data:
  name: digits
  batch_size: 64
  # val_fraction: 0.2     # share that is kept for validation
  # args: {}
  # workers: 0            # loading processes, for data that is not kept in memory
  # in_memory: auto       # auto | true | false

# a loss of torch.nn.functional (cross_entropy, mse_loss, ...), or your own: my_loss:loss
loss: cross_entropy

optimizer:
  name: SGD               # a class of torch.optim: SGD, Adam, AdamW, ...
  lr: 0.1                 # the base learning rate, the peak that the schedule scales
  args: {momentum: 0.9}
  # groups: [{match: "head.*", lr_scale: 10}]   # parameters with a rate of their own

# A name, or a name with parameters. Durations are steps (500st or 500), epochs (10ep),
# tokens (2e6tok), samples (64000sa) or a share of the training (5%).
# schedule: constant
schedule: {name: cosine, warmup: 5%}

train:
  duration: 10ep
  # eval_every: 1ep
  # accumulate: 1         # batches per optimizer step
  # grad_clip: null       # largest gradient norm

# Without variants, `lrexp compare` runs high, standard and low: 10, 1 and 0.1 times optimizer.lr.
compare:
  seeds: 1                # replicates of every variant; verdicts take 6 or more
  # metric: val_loss      # val_loss | train_loss | val_accuracy
  # reference: standard   # the others are compared with it; best: with whichever ranks first
  # target: null          # a value of the metric: how soon does each variant reach it?
  # variants:             # what each variant changes, as dotted keys
  #   sgd: {}
  #   adam: {optimizer.name: Adam, optimizer.lr: 0.001, optimizer.args: {}}
  # grid:                 # or every combination of lists
  #   optimizer.lr: [0.5, 0.05]
  #   schedule: [constant, {name: cosine, warmup: 5%}]

# The range test of `lrexp find-lr`, and the race that verifies it.
find_lr:
  # min_lr: 1e-7          # LR of the first step
  # max_lr: 10            # LR of the last one
  # steps: 100
  # seeds: 3
  # mode: exp             # exp | linear
  # stop_factor: 4        # stop where the loss is this many times its best
  # rule: auto
  # race: false           # or --race: verify the LR by short trainings around it
  # budget: 1             # of the race, in full trainings
"""
