"""Draw the digits 0 to 9 with a model that is not told which digit to draw: a classifier's loss steers it."""

import symguide as sg
from symguide import report
from symguide.worlds import digits

denoiser = sg.load("digits")
objective = sg.objectives.Classifier(digits.scorer(), label=range(10))
result = sg.sample(denoiser, batch=10, steps=30, seed=0, loss=sg.FreeDoM(objective))
picture = report.grid(result.samples, heads=list("0123456789"), ink=True)
print(f"{result.cost}\nwrote {report.write('out/quickstart.png', report.png(picture))}")
