"""The workshop "Is this generator fair, and would you have noticed?".

Above the studies, whose simulated audits it calls. Nothing here imports torch or matplotlib before
it is needed, so that a class does not wait for it.
"""

from fairdiff_lib.workshop.answers import check as check
from fairdiff_lib.workshop.answers import hint as hint
from fairdiff_lib.workshop.answers import predict as predict
from fairdiff_lib.workshop.answers import progress as progress
from fairdiff_lib.workshop.answers import solution as solution
