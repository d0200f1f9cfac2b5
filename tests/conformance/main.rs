//! The laws of `Remote`, run over every remote that can be had here.
//!
//! A law is an async function over a [`World`]: one fresh, empty account. `rows.rs` says which accounts there are. Run one row
//! with `ROW=folder cargo test --test conformance`, one law with its name.

mod conditions;
mod content;
mod feed;
#[path = "../common/flaky.rs"]
mod flaky;
mod links;
mod meta;
mod names;
mod rows;
mod s3;
#[path = "../servers/s3.rs"]
mod s3_servers;
#[path = "../servers/mod.rs"]
mod servers;
mod sessions;
mod tree;
mod webdav;
mod world;

pub use rows::{Opened, Row, rows};
pub use world::World;

/// Runs a law over every row, each in an account of its own.
fn run<F, Fut>(law: &str, body: F)
where
    F: Fn(World) -> Fut,
    Fut: Future<Output = ()>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let only = std::env::var("ROW").ok();
    runtime.block_on(async {
        for row in rows().into_iter().filter(|row| only.as_ref().is_none_or(|only| row.name.contains(only.as_str()))) {
            eprintln!("-- {law} over {}", row.name);
            if let Some((_, fault)) = row.faults.iter().find(|(broken, _)| *broken == law) {
                eprintln!("SKIPPED {}: the server breaks this law: {fault}", row.name);
                continue;
            }
            match (row.open)().await {
                Some(opened) => body(World::new(row.name, law, opened)).await,
                None => eprintln!("SKIPPED {}: this row cannot be had here", row.name),
            }
        }
    });
}

/// Makes a test of each law.
macro_rules! laws {
    ($($module:ident: $($law:ident)*;)*) => {
        $($(
            #[test]
            fn $law() {
                run(stringify!($law), $module::$law);
            }
        )*)*
    };
}

laws! {
    content:
        what_is_absent_is_none_and_no_error
        what_was_put_is_read_back
        a_range_gives_exactly_its_bytes
        each_content_has_its_own_version
        an_old_version_gives_old_bytes_or_changed
        a_failing_source_leaves_the_old_content_whole
        a_stated_hash_is_that_of_the_content
        what_cannot_be_read_is_an_error
        a_write_to_the_wrong_place_is_refused
        writers_at_once_leave_one_whole_content;
    conditions:
        create_refuses_what_exists
        replace_refuses_another_version
        remove_refuses_another_version
        rename_obeys_its_condition
        copy_obeys_its_condition
        of_rivals_the_refused_leave_nothing
        of_rivals_one_wins;
    tree:
        directories_are_made_and_listed
        a_listing_holds_every_child_once
        a_sweep_is_the_whole_tree
        a_deep_tree_works
        nothing_unnamed_is_removed
        a_file_moves
        a_directory_moves_with_all_below
        a_move_that_cannot_be_changes_nothing
        ids_survive_moves
        space_is_stated;
    names:
        every_name_survives
        names_that_differ_in_case_are_two_or_one
        a_name_that_is_too_long_is_refused;
    meta:
        attributes_come_back
        attributes_change_alone
        directories_keep_attributes;
    links:
        links_keep_their_target;
    sessions:
        parts_in_any_order_make_the_content
        a_session_goes_on_after_a_crash
        an_aborted_session_leaves_nothing
        finish_obeys_its_condition
        a_part_can_be_copied_from_the_old_version;
    feed:
        a_view_that_follows_the_feed_is_the_tree
        an_unknown_cursor_is_told_to_start_over
        a_wait_ends_with_a_change
        directory_versions_tell_of_changes_below;
}
