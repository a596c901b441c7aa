"""The process of a contender."""

import json
import subprocess
import sys

from omegaconf import OmegaConf

from deepexp.config.compose import compose


def test_the_bare_loop_imports_no_compiler_as_runs_do_not(tmp_path):
    """torch's optimizers would import it, which takes seconds."""
    words = ["threads=1", "device=cpu", "data.subset=100", "batch_size=20"]
    config = OmegaConf.to_container(compose(words).config, resolve=True)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom deepexp.bench import worker\nsys.argv[1:] = ['bare']\nworker.main()\n"
        "print('torch._dynamo.eval_frame' in sys.modules)\n"  # goes to stderr: stdout is for answers only
    )
    asked = "".join(json.dumps(line) + "\n" for line in (config, ["steps", 1]))
    done = subprocess.run([sys.executable, script], input=asked, capture_output=True, text=True, check=True)
    assert done.stderr.split()[-1] == "False"
    assert json.loads(done.stdout.splitlines()[-1])["step_seconds"] > 0
