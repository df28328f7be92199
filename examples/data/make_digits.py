#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# SPDX-FileCopyrightText: the shardmesh authors
"""Writes digits.txt: 1,000 of the 1,797 handwritten digits that scikit-learn ships (E. Alpaydin, C. Kaynak, Optical
Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, CC BY 4.0). A line each: the digit, a space, 8 x 8
pixels of 0 to 16 as the characters 0 to 9, a to g. Needs scikit-learn; run once, the result is committed."""
import pathlib

from sklearn.datasets import load_digits

digits = load_digits()
lines = [f"{digit} {''.join('0123456789abcdefg'[int(pixel)] for pixel in image)}\n"
         for digit, image in zip(digits.target[:1000], digits.data[:1000])]
pathlib.Path(__file__).with_name("digits.txt").write_text("".join(lines))
