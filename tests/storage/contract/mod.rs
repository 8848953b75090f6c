//! The guarantees of every storage, checked for every kind: see `runzeo::storage::Storage`.
//!
//! `kinds` makes the storages and lists their abilities; the other files are the checks, each of which runs on a new
//! storage of each kind. `layers` checks that no method is lost between a layer and its inner storage.

mod commits;
mod former_states;
mod kinds;
mod layers;
mod lists;
mod merging;
#[allow(dead_code)] // The program around the storage.
#[path = "../../../examples/own_storage.rs"]
mod own_storage;
mod read_only;
mod reads;

mod together;
mod upkeep;

/// A test for each check and kind.
macro_rules! contract {
    ($($kind:ident),* => $checks:tt) => {
        $(contract!(@kind $kind $checks);)*
    };
    (@kind $kind:ident [$($group:ident::$check:ident),* $(,)?]) => {
        mod $kind {
            $(#[test]
            fn $check() {
                super::$group::$check(&super::kinds::$kind());
            })*
        }
    };
}

contract!(
    file, mapping, temporary, of_the_example, demo, demo_over_file, demo_in_demo, zlib_file, zlib_mapping, server_zlib, demo_with_zlib_changes, postgres,
    postgres_free => [
        reads::what_is_stored_is_loaded,
        reads::every_revision_before_a_tid,
        reads::what_there_is_not,
        reads::history_is_newest_first,
        lists::all_objects_in_order,
        lists::transactions_in_order,
        lists::iterators_see_what_was_there,
        lists::the_last_transactions,
        commits::conflicts_are_found_at_vote,
        commits::dependencies_are_checked,
        commits::an_aborted_transaction_leaves_nothing,
        commits::a_transaction_of_many_records,
        commits::tids_at_vote,
        commits::what_is_told_when_it_is_published,
        commits::deleted_objects,
        commits::restored_records,
        commits::oids_are_given_out_once,
        commits::after_close_nothing_works,
        merging::conflicts_are_merged,
        merging::clients_merge_themselves,
        merging::the_first_conflict_is_told,
        together::transactions_vote_and_finish_in_any_order,
        together::threads_commit_and_read,
        upkeep::a_pack_forgets_the_past,
        upkeep::transactions_are_undone,
    ]
);
