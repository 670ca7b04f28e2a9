"""The command line: flags, the config file and its overrides; every mistake is answered by one clear line.

Nothing here imports jax, so a mistake is answered at once.
"""

import difflib
import re
import runpy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from amt.errors import UserError
from amt.modes import BUILT, LATER

CONFIG, MODE, WORKDIR = "configs/demo.py", "demo", "runs/demo"

HELP = """\
python launch.py [--config=FILE.py[:VARIANT]] [--mode=MODE] [--workdir=DIR] [--input=PATH] [--config.FIELD=X]

  --config        the configuration; default {CONFIG}
  --mode          what to do; default {MODE}
  --workdir       the folder for results; default {WORKDIR}
  --input         what predict reads: a video, an image or a folder of images; what convert reads; a results file
                  for evaluate to score
  --config.FIELD  one field of the configuration, as --config.train.steps=100 or
                  --config.camera.K="(600,0,320,0,600,240,0,0,1)"

modes
{modes}"""


class Options(NamedTuple):
    """A checked command line; `config` is locked: its fields can change, none can be added."""

    config: ConfigDict
    mode: str
    workdir: str
    input: str


def help_text() -> str:
    """What `--help` prints."""
    modes = "\n".join(f"  {name:<14}  {what}" for name, what in BUILT.items())
    return HELP.format(CONFIG=CONFIG, MODE=MODE, WORKDIR=WORKDIR, modes=modes)


def parse(argv: list[str], root: Path) -> Options:
    """Reads a command line (`argv[0]` is the program); a config path is looked for here, then below `root`.

    Raises: UserError for an unknown flag or mode, a missing or broken config file, an unknown variant, an
    unknown field and a value of the wrong type.
    """
    spec, argv = _take_config(argv)
    config = load_config(spec, root)
    _check_fields(argv, config)
    values = flags.FlagValues()
    for name, default in (("mode", MODE), ("workdir", WORKDIR), ("input", "")):
        flags.DEFINE_string(name, default, "", flag_values=values)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        unused = values(argv)[1:]
    except flags.Error as error:
        raise UserError(_explain(error, config)) from error
    if unused:
        raise UserError(f"command line: found {unused[0]!r}, expected only --flags; a path goes behind --input=")
    _check_mode(values.mode)
    return Options(values.config, values.mode, values.workdir, values.input)


def _take_config(argv: list[str]) -> tuple[str, list[str]]:
    """The last `--config=FILE` or `--config FILE`, and the command line without them."""
    spec, rest, arguments = CONFIG, [], iter(argv)
    for argument in arguments:
        name, given, value = argument.partition("=")
        if name not in ("--config", "-config"):
            rest.append(argument)
            continue
        spec = value if given else next(arguments, "")
        if not spec:
            raise UserError("--config: no file given; expected --config=FILE.py or --config=FILE.py:VARIANT")
    return spec, rest


def load_config(spec: str, root: Path) -> ConfigDict:
    """What `get_config` of `FILE.py` or `FILE.py:VARIANT` returns, locked.

    Raises: UserError for a missing file, an unknown variant (get_config's ValueError), any error in the file.
    """
    name, _, variant = spec.partition(":")
    path = next((path for path in (Path(name).expanduser(), root / name) if path.is_file()), None)
    if path is None:
        near = did_you_mean(name, [f"configs/{path.name}" for path in sorted((root / "configs").glob("[!_]*.py"))])
        raise UserError(f"--config={spec}: no such file{near}; expected FILE.py or FILE.py:VARIANT")
    try:
        get_config = runpy.run_path(str(path))["get_config"]
        return get_config(*[variant] if variant else []).lock()
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(f"--config={spec}: cannot be loaded: {reason}") from error


def _check_fields(argv: list[str], config: ConfigDict) -> None:
    for argument in argv:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match:
            find_field(config, match[1])


def find_field(config: ConfigDict, path: str) -> Any:
    """The value of a dotted field.

    Raises: UserError that names the first unknown part and its nearest sibling.
    """
    value, seen = config, "config"
    for part in path.split("."):
        if not isinstance(value, ConfigDict):
            raise UserError(f"--config.{path}: {seen} is one value and has no fields; drop what follows it")
        if part not in value:
            near = did_you_mean(part, value, f"--{seen}.") or f"; it has {', '.join(sorted(value))}"
            raise UserError(f"--config.{path}: {seen} has no field {part!r}{near}")
        value, seen = value[part], f"{seen}.{part}"
    return value


def _explain(error: flags.Error, config: ConfigDict) -> str:
    wrong = re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL)
    if not wrong:
        return f"command line: {error}; python launch.py --help lists the flags"
    now = find_field(config, wrong[1])
    kind = "a section" if isinstance(now, ConfigDict) else f"{type(now).__name__} like {now!r}"
    return f"--config.{wrong[1]}: found {wrong[2]!r}, expected {kind}"


def _check_mode(mode: str) -> None:
    if mode in LATER:
        raise UserError(f"--mode={mode}: not built yet, it comes with {LATER[mode]}; built now: {', '.join(BUILT)}")
    if mode not in BUILT:
        raise UserError(f"--mode={mode}: no such mode{did_you_mean(mode, BUILT)}; expected one of {', '.join(BUILT)}")


def did_you_mean(word: str, words: Iterable[str], prefix: str = "") -> str:
    """`, did you mean X?` for the word nearest to `word`, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f", did you mean {prefix}{near[0]}?" if near else ""
