"""A recipe for buildout: plone.recipe.zeoserver with this server in the place of Python's.

    [zeo]
    recipe = runzeo-rs[buildout]:zeoserver

takes all options of plone.recipe.zeoserver, and makes the same parts and scripts. What starts the server (`bin/zeo start`, `bin/zeo fg`,
supervisord) starts runzeo.
"""
import contextlib
import os

try:
    from plone.recipe.zeoserver.recipe import Recipe as PythonRecipe
except ImportError:  # before version 3
    from plone.recipe.zeoserver import Recipe as PythonRecipe

from runzeo_rs import find_binary

START = '''#!/bin/sh
INSTANCE_HOME="%(location)s"
export INSTANCE_HOME
exec "%(binary)s" -C "%(conf)s" "$@"
'''

# Under supervisord the script must not fork, so it becomes the server.
SUPERVISED = '''
import os
if 'SUPERVISOR_ENABLED' in os.environ:
    os.execv(%(script)r, [%(script)r])

'''
MAIN = "if __name__ == '__main__':"


@contextlib.contextmanager
def _as_python(options):
    """Python's recipe takes the option `recipe` for the name of its own package."""
    own = options['recipe']
    options['recipe'] = 'plone.recipe.zeoserver'
    try:
        yield
    finally:
        options['recipe'] = own


class Recipe(PythonRecipe):

    def __init__(self, buildout, name, options):
        with _as_python(options):
            PythonRecipe.__init__(self, buildout, name, options)

    def patch_binaries(self):
        PythonRecipe.patch_binaries(self)
        location = self.options['location']
        conf = self.options.get('zeo-conf') or os.path.join(location, 'etc', 'zeo.conf')
        path = self._start_script()
        with open(path, 'w') as script:
            script.write(START % {'location': location, 'binary': find_binary('runzeo'), 'conf': conf})
        os.chmod(path, 0o755)

    def install_scripts(self):
        with _as_python(self.options):
            PythonRecipe.install_scripts(self)
        path = os.path.join(self.options['bin-directory'], self.name)
        with open(path) as script:
            text = script.read()
        if MAIN not in text:
            raise ValueError('%s: cannot be changed for supervisord: this version of plone.recipe.zeoserver is not known' % path)
        with open(path, 'w') as script:
            script.write(text.replace(MAIN, SUPERVISED % {'script': self._start_script()} + MAIN))

    def _start_script(self):
        return os.path.join(self.options['location'], 'bin', 'runzeo')
