# SPDX-License-Identifier: MIT
"""Every failure that turning virtualization on can report is provoked by a system test."""
import os
import sys

sys.path.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "system"))
from tests import TESTS  # noqa: E402  pylint: disable=wrong-import-position
import faults  # noqa: E402  pylint: disable=wrong-import-position


def check_messages(_options):
    """The strings of the files that can fail against the lines that the tests of tests/system/faults.py expect."""
    count = sum(len(faults.messages(".", path)) for path in faults.SOURCES)
    bad = faults.uncovered(".", TESTS)
    return bad or ([] if count > 50 else ["no message was found: this check sees nothing"]), f"{count} strings"
