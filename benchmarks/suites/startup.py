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
