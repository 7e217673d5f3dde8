//! The binary as a shell meets it: exit codes, and which stream says what.

use std::process::{Command, Output};

fn touchstone(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_touchstone"));
    command.args(arguments).env_clear().output().expect("the binary starts")
}

#[test]
fn an_unknown_command_is_a_mistake_in_usage() {
    let output = touchstone(&["judge"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(output.stdout.is_empty(), "errors go to standard error");
    assert!(String::from_utf8_lossy(&output.stderr).contains("judge"), "{output:?}");
}

#[test]
fn a_service_that_is_not_there_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a listener has an address");
    drop(listener);
    let output = touchstone(&["--endpoint", &format!("http://{address}"), "get", "portrait"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address.to_string()), "{output:?}");
}

#[test]
fn completions_name_the_commands() {
    let output = touchstone(&["completions", "bash"]);
    assert!(output.status.success());
    let script = String::from_utf8_lossy(&output.stdout);
    assert!(["submit", "verify", "watch"].iter().all(|command| script.contains(command)));
}
