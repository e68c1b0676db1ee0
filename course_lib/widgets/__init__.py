"""What the reader moves: one module a chapter. Each widget is a plain function `state(...) -> picture` and a thin shell of controls.

The function is tested without a browser; where no kernel runs, the picture of the default state stands in the widget's place.
"""
