"""The command, with every process keeping what it compiles: JAX lets only the first, and on CPU the others find nothing of it."""

import types

from absl import app
from jax._src import compiler

from ddpm import main
from ddpm.tuning import tune

compiler.distributed = types.SimpleNamespace(global_state=types.SimpleNamespace(process_id=0))

if __name__ == "__main__":
    tune()
    app.run(main.main, flags_parser=main._parse_flags)
