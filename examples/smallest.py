"""The whole job in a few lines: train a 2-bit network on digits, halve its memory, get a measured .tflite."""

import tfqprune as tq
from tfqprune import data, zoo

digits = data.load("digits")
model = zoo.build("resnet_digits", precision=2)
tq.finetune(model, digits.train, digits.validation, epochs=30, learning_rate=3e-3, batch_size=64)
result = tq.compress(
    model, digits.train, digits.validation, test=digits.test, budget=tq.Budget(memory=0.5), output_dir="runs/smallest"
)
print(result)
