//! A server in a child process. The server prints one line of JSON when it is ready, and exits when
//! its stdin is closed.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A child process that is killed on drop.
pub(crate) struct Process(Child);

/// Returns the path of a file in this folder.
pub(crate) fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "interop", name].iter().collect()
}

impl Process {
    /// Starts the process, writes `input` to its stdin, and returns the line that it prints when it
    /// is ready.
    pub(crate) fn start(command: &mut Command, input: &str) -> (Self, Value) {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process =
            Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}; {INSTALL}")));
        let stdin = process.0.stdin.as_mut().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        stdin.flush().unwrap();
        let stdout = BufReader::new(process.0.stdout.take().unwrap());
        let (sender, ready) = mpsc::channel();
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let Ok(line) = ready.recv_timeout(START_TIMEOUT) else {
            panic!("{command:?} did not start; {INSTALL}");
        };
        (process, serde_json::from_str(&line).unwrap())
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const INSTALL: &str = "start this test with tests/interop/run, which installs the servers";

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
