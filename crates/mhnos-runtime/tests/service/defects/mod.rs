//! Each defect of the service's predecessor (an earlier server of the same protocol), shown absent here.
//!
//! The table is complete: `every_defect_has_a_test_that_exists` reads it. A test that shows one says `Defect N`.
//!
//! | defect | what the predecessor did | shown absent by |
//! |---|---|---|
//! | 1 | a write to a closed or ended program killed the service | `input::writing_to_a_program_that_does_not_read_or_has_ended_harms_nobody`, `input::writes_that_race_with_the_end_harm_nobody` |
//! | 2 | a terminal's last output was lost | `output::a_terminals_output_is_complete_twenty_times` |
//! | 3 | a program that could not start was "running" for ever | `starting::a_program_that_cannot_start_is_an_error_and_takes_no_place` |
//! | 4 | characters and bytes were destroyed between reads | `output::characters_survive_however_they_are_read`, `bytes::five_megabytes_of_random_bytes_survive_base64_and_a_write_through_cat` |
//! | 5 | a stalled client or program cost memory without bound | `memory::a_stalled_client_costs_bounded_memory_and_wakes_to_a_gap`, `memory::a_program_that_does_not_read_costs_bounded_memory` |
//! | 6 | an interactive shell survived kill and timeout | `ending::killing_an_interactive_shell_ends_it`, `ending::a_timeout_ends_an_interactive_shell` |
//! | 7 | SIGKILL never followed | `ending::a_kill_escalates_and_takes_all_descendants`, `ending::a_timeout_ends_what_ignores_signals_and_says_so` |
//! | 8 | descendants survived | `ending::a_kill_escalates_and_takes_all_descendants`, `ending::a_kill_takes_what_hides_from_it` |
//! | 9 | programs survived the service | `life::a_drain_ends_programs_tells_clients_and_leaves_nothing`, `life::nothing_outlives_the_keeper` |
//! | 10 | a burst passed the limit | `starting::a_burst_of_spawns_never_passes_the_limit` |
//! | 11 | dead peers were never dropped | `memory::a_peer_that_answers_no_ping_is_dropped` |
//! | 12 | workerd never worked | `programs::workerd_serves_a_workers_source_and_says_where`, `programs::workerd_takes_a_configuration_as_it_is` |
//! | 13 | OpenClaw's gateway did not start | `programs::openclaws_gateway_starts_without_questions_and_answers_in_every_tier` |
//! | 14 | a shell ignored its command | `programs::a_shell_honours_its_command_and_arguments` |
//! | 15 | what had ended could not be read | `output::an_ended_program_can_be_read_and_listed` |
//! | 16 | `exit` came before the last output | `output::the_exit_comes_after_all_output_even_if_a_descendant_writes_it`, `output::twenty_programs_at_once_tell_everything_before_their_exit` |
//! | 17 | memory limits were misread, and held for node alone | `memory::memory_is_limited_for_every_type_and_capital_letters_are_sizes` |
//! | 18 | a long timeout fired at once | `ending::a_long_timeout_does_not_fire_at_once` |
//! | 19 | a push could leave the workspace | `files::a_push_that_leaves_the_workspace_fails_and_says_so` |
//! | 20 | files that were not written counted as written | `files::an_entry_that_cannot_be_written_fails_and_takes_no_other_with_it` |
//! | 21 | statistics, signals, order and `killed` were wrong | `answers::a_signal_is_told_by_name_for_every_type`, `answers::statistics_count_what_their_names_say`, `answers::answers_come_in_the_order_of_the_requests`, `answers::killing_what_is_not_there_is_an_error` |
//! | 22 | some requests got no answer at all | `bad_input::frames_that_are_no_request_get_an_error`, `answers::what_fails_is_told_even_to_a_request_without_an_id` |
//! | 23 | a port in use ended with status 0 | `life::a_port_in_use_is_an_error` |
//! | 24 | the Web OS page's requests timed out | `answers::the_web_os_page_gets_an_answer_of_a_type_it_knows` |
//! | 25 | anybody could run programs, with any interpreter, behind no walls | `door::only_this_machine_is_listened_to`, `door::pages_of_other_origins_and_rebound_hosts_are_refused`, `door::the_environment_does_not_choose_the_interpreter`, `sandbox::strict_walls_off_the_host_and_leaves_the_workspace` |

mod answers;
mod bytes;
mod door;
mod ending;
mod files;
mod input;
mod memory;
mod output;
mod starting;

#[test]
fn every_defect_has_a_test_that_exists() {
    let sources = [
        ("answers", include_str!("answers.rs")),
        ("bytes", include_str!("bytes.rs")),
        ("door", include_str!("door.rs")),
        ("ending", include_str!("ending.rs")),
        ("files", include_str!("files.rs")),
        ("input", include_str!("input.rs")),
        ("memory", include_str!("memory.rs")),
        ("output", include_str!("output.rs")),
        ("starting", include_str!("starting.rs")),
        ("bad_input", include_str!("../bad_input.rs")),
        ("life", include_str!("../life.rs")),
        ("programs", include_str!("../programs.rs")),
        ("sandbox", include_str!("../sandbox.rs")),
    ];
    let mut next = 1;
    for row in include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some(number) = row.split(' ').next().and_then(|number| number.parse::<u32>().ok()) else {
            continue;
        };
        assert_eq!(number, next, "the table goes from 1 to 25");
        next += 1;
        let named: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        assert!(!named.is_empty(), "defect {number} has no test");
        for name in named {
            let (module, test) = name.split_once("::").expect("filtered");
            let source = sources.iter().find(|(known, _)| *known == module).map(|(_, source)| *source);
            let source = source.unwrap_or_else(|| panic!("there is no module {module}"));
            assert!(source.contains(&format!("fn {test}(")), "there is no test {name}");
        }
    }
    assert_eq!(next, 26, "the table goes from 1 to 25");
}
