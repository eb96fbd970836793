"""What a process pays before its first result; kernels are on disk after the warm-up run."""


class Startup:
    timeout = 120

    def timeraw_import_numpy(self):
        return "import numpy"

    def timeraw_import_fastconv(self):
        return "import fastconv"

    def timeraw_first_conv(self):
        return """
        import numpy as np
        import fastconv as fc
        y = fc.conv(np.ones((1, 8, 8, 1), np.float32), np.ones((3, 3, 1, 1), np.float32))
        if not (y == 9).all():
            raise AssertionError("wrong answer")
        """

    def timeraw_first_max_pool(self):
        return """
        import numpy as np
        import fastconv as fc
        if not (fc.max_pool(np.ones((1, 8, 8, 1), np.float32), 2) == 1).all():
            raise AssertionError("wrong answer")
        """


class FirstStep:
    """A process that trains digits_cnn one step and predicts."""

    number, repeat, rounds, warmup_time, timeout = 1, 1, 1, 0, 600

    CODE = """
    import numpy as np
    from fastconv import nn
    from fastconv.examples import digits_cnn

    model, loss = digits_cnn(seed=0), nn.SoftmaxCrossEntropy()
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 8, 8, 1), np.float32), rng.integers(0, 10, 64)
    nn.train_step(model, loss, nn.Adam(model.parameters(), lr=0.002), x, y)
    model.predict(x)
    """
    EMPTY = """
    import os, tempfile
    folder = tempfile.TemporaryDirectory()
    os.environ["FASTCONV_CACHE_DIR"] = folder.name
    """

    def timeraw_kernels_on_disk(self):
        return self.CODE

    def timeraw_empty_kernel_cache(self):
        return self.EMPTY + self.CODE
