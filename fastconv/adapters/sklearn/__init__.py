"""What the estimators of :mod:`fastconv.sklearn` are made of."""
