"""What a transaction costs the ledger as the state grows: `python -m bench.state --tokens 10000,100000,1000000`.

For each size a chain is made by the genesis generator in a directory of its own; then blocks of refills and
consumptions by random prosumers are built, committed and published as the node does it, without network and
signatures. CPU time is the whole process's, LevelDB's own threads included. JSON on standard output.
"""

import argparse
import json
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from bench.workload import BenchMeter, GAS_LIMIT, reading
from ctt_state.crypto import address_of
from ctt_state.genesis import Genesis, load_genesis, preload_address, preload_key
from ctt_state.modules.ctt import CTT
from ctt_state.transaction import DYNAMIC_FEE, Signed, Transaction
from ctt_state.crypto import sha256
from ctt_state.units import Address, Gas, Hash, Ms, Wei
from node.ledger import BlockPlan, Ledger, create_ledger
