//! Model-checked tests: every interleaving of the publish step, of the table of locks and of the group commit.
//! `scripts/model` runs them, in a build of its own with `--cfg loom`; without that flag nothing is here.

#![cfg(loom)]

mod group;
mod locks;
mod publish;
