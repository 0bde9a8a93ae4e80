"""What pyproject.toml cannot say: the start-up files go to the root of site-packages, editable installs included.

And the list of deviations, which is kept in docs, goes into the package, for the report to quote.
"""

import os
from typing import ClassVar

from setuptools import Command, setup
from setuptools.command.build import build

STARTUP_FILES = ("nnunet_ext.pth", "nnunet_ext.start")
HOOK = "_nnunet_ext_hook.py"
DEVIATIONS = ("docs/deviations.md", "nnunet_ext/report/deviations.md")


class build_startup(Command):
    """Copy the start-up files next to the package.

    An editable install gets a copy of the hook itself too: a checkout that is moved or deleted must not make every
    interpreter of the environment complain at start-up.
    """

    description = "copy the start-up files to the root of site-packages"
    user_options = ()
    editable_mode = False  # set by setuptools

    def initialize_options(self):
        self.build_lib = None

    def finalize_options(self):
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self):
        destination, files = self.build_lib, STARTUP_FILES
        if self.editable_mode:  # install_lib is the unpacked editable wheel
            destination, files = self.get_finalized_command("install").install_lib, (*STARTUP_FILES, HOOK)
        self.mkpath(destination)
        for file in files:
            self.copy_file(file, os.path.join(destination, file), preserve_mode=False)
        if not self.editable_mode:  # a checkout has its docs
            source, target = DEVIATIONS[0], os.path.join(destination, DEVIATIONS[1])
            self.mkpath(os.path.dirname(target))
            self.copy_file(source, target, preserve_mode=False)

    def get_outputs(self):
        files = (*STARTUP_FILES, DEVIATIONS[1])
        return [] if self.editable_mode else [os.path.join(self.build_lib, f) for f in files]

    def get_output_mapping(self):
        return {}

    def get_source_files(self):
        return [*STARTUP_FILES, DEVIATIONS[0]]


class build_with_startup(build):
    # a list, as setuptools has it: plug-ins of other build systems append to it
    sub_commands: ClassVar = [*build.sub_commands, ("build_startup", None)]


setup(cmdclass={"build": build_with_startup, "build_startup": build_startup})
