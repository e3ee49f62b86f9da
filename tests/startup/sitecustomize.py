"""Run by every Python that tests start: they start hundreds, which import much and live for seconds.

Of their time one part in fifteen went to the collector's passes over what they import.
"""

import gc

gc.set_threshold(100_000, 20, 20)
