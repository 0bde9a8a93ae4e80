"""Start-up hook of nnunet_ext: makes its classes known to stock nnU-Net in every interpreter of this environment.

``nnunet_ext.pth`` (Python < 3.15) or ``nnunet_ext.start`` (>= 3.15) loads this file when an interpreter starts, hence
also in the worker processes that nnU-Net spawns. It imports nothing beyond the standard library and does nothing
but wait for two modules:

* ``nnunetv2.utilities.find_class_by_name``: names listed in ``nnunet_ext.registry`` are answered first, every other
  name goes to nnU-Net unchanged;
* ``torchvision.extension``: where torchvision's compiled operators do not fit the installed torch (typically a CPU
  build of torch with the default torchvision), the two operator schemas whose absence makes ``import torchvision``
  fail are declared, with a warning, if it is nnU-Net or segment-anything that imports it: nnU-Net's own class search
  and SAM do so without calling them. Every other program of the environment keeps its error.

``NNUNET_EXT_DISABLE=1`` switches all of it off. Whatever goes wrong in here is reported on stderr and never raised:
a broken plug-in must leave stock nnU-Net working.
"""

import os
import sys

_warned = set()  # type: set[str]


def _warn(message):
    """Say it once: nnU-Net looks a class up for every channel of every case."""
    if message not in _warned:
        _warned.add(message)
        print(f"nnunet_ext: {message}", file=sys.stderr)


def _extend_class_search(module):
    """Have ``recursive_find_python_class(folder, class_name, current_module, ...)`` answer our names first."""
    attribute = "recursive_find_python_class"
    stock = getattr(module, attribute)
    if getattr(stock, "__nnunet_ext__", False):
        return

    def recursive_find_python_class(folder, class_name, current_module, *args, **kwargs):
        try:
            from nnunet_ext import registry

            entry = registry.find(current_module, class_name)
        except Exception as e:  # whatever is wrong with the plug-in, stock classes must be found
            _warn(f"the plug-in is broken and ignored, stock nnU-Net goes on without it: {e!r}")
            entry = None
        if entry is not None:
            return entry.load()
        return stock(folder, class_name, current_module, *args, **kwargs)

    recursive_find_python_class.__doc__ = stock.__doc__
    recursive_find_python_class.__dict__.update(__wrapped__=stock, __nnunet_ext__=True)
    setattr(module, attribute, recursive_find_python_class)
    for name, other in list(sys.modules.items()):  # those that have imported the function already
        if name.startswith("nnunetv2.") and getattr(other, attribute, None) is stock:
            setattr(other, attribute, recursive_find_python_class)


def _waiting(packages, frame):
    """Tell whether code of one of these packages waits for that of `frame`, however indirectly."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in packages:
            return True
        frame = frame.f_back
    return False


def _heal_torchvision(module):
    """Declare ``torchvision::nms`` and ``torchvision::qnms`` where the compiled operators did not load."""
    if module._has_ops() or not _waiting({"nnunetv2", "segment_anything"}, sys._getframe()):
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    module._nnunet_ext_library = library  # the declarations live as long as this object
    _warn(
        "torchvision's compiled operators do not fit this torch. nnU-Net and segment-anything, which do not call them, "
        "go on with declarations of nms and qnms; for other programs install torch and torchvision from one index"
    )


_AFTER_IMPORT = {
    "nnunetv2.utilities.find_class_by_name": _extend_class_search,
    "torchvision.extension": _heal_torchvision,
}


def _run(callback, module):
    try:
        callback(module)
    except Exception as e:  # see the module docstring
        _warn(f"could not hook into {module.__name__}: {e!r}")


def _call_after_execution(loader, name, callback):
    """Have `callback(module)` run once `loader` has executed the module called `name`."""
    execute = loader.exec_module

    def exec_module(module):
        execute(module)
        if module.__name__ == name:  # some loaders, zipimport's among them, serve many modules
            _run(callback, module)

    loader.exec_module = exec_module


class _Finder:
    """Meta-path finder that lets the other finders find a module and has a callback run once it is executed."""

    searching = set()  # type: set[str]

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision":  # an import that failed left its extension, which would not be executed again
            sys.modules.pop("torchvision.extension", None)
        callback = _AFTER_IMPORT.get(name)
        if callback is None or name in cls.searching:
            return None
        cls.searching.add(name)  # a finder that asks all others, as this one does, must not be asked in a circle
        try:
            for finder in sys.meta_path:
                find_spec = getattr(finder, "find_spec", None)
                spec = find_spec and find_spec(name, path, target)
                if spec is not None:
                    break
            else:
                return None
        finally:
            cls.searching.discard(name)
        try:
            _call_after_execution(spec.loader, name, callback)
        except Exception as e:  # see the module docstring
            _warn(f"could not hook into {name}: {e!r}")
        return spec


def disabled():
    """Tell whether ``NNUNET_EXT_DISABLE`` switches the hook off."""
    return os.environ.get("NNUNET_EXT_DISABLE", "") not in ("", "0")


def install():
    """Start waiting for the modules above; those already imported are dealt with at once. Idempotent."""
    if disabled() or installed():
        return
    sys.meta_path.insert(0, _Finder)
    for name, callback in _AFTER_IMPORT.items():
        if name in sys.modules:
            _run(callback, sys.modules[name])


def installed():
    """Tell whether the hook is active in this interpreter."""
    return _Finder in sys.meta_path


install()
