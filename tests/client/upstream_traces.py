"""Makes the traces of the doctest `cache_trace_analysis` of ZEO's own tests, and writes down what it expects.

    upstream_traces.py DIRECTORY

The doctest is run from the installed package, except for the scripts: their arguments go to N.arguments, one a line,
and the expected output to N.expected (N counts from 0).
"""
import doctest
import os
import sys

import ZEO.scripts.cache_simul
import ZEO.scripts.cache_stats
import ZEO.tests.test_cache as tests

os.chdir(sys.argv[1])
names = dict(vars(tests), os=os, ZEO=ZEO)
called = []


def recorder(script):
    def main(arguments):
        called.append([script] + arguments)
    return main


ZEO.scripts.cache_stats.main = recorder('stats')
ZEO.scripts.cache_simul.main = recorder('simulate')
for example in doctest.DocTestParser().get_examples(tests.cache_trace_analysis.__doc__):
    before = len(called)
    exec(compile(example.source, 'example', 'exec'), names)
    if len(called) > before:
        with open('%d.arguments' % before, 'w') as f:
            f.write('\n'.join(called[-1]) + '\n')
        with open('%d.expected' % before, 'w') as f:
            f.write(example.want)
