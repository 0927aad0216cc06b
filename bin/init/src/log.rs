//! Lines on the console, by the kernel's log, each with the time since this program started.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use sys::root::InitSteps;

/// Where lines go. Those before the log can be opened are kept.
pub(crate) struct Log {
    started: Duration,
    steps: RefCell<Steps>,
    state: RefCell<State>,
}

/// The steps that are done, and when the last one was.
struct Steps {
    done: InitSteps,
    until: Duration,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    kept: Vec<String>,
}

impl Log {
    pub(crate) fn start() -> Self {
        let started = sys::host::since_boot();
        let steps = RefCell::new(Steps { done: InitSteps::default(), until: started });
        Self { started, steps, state: RefCell::default() }
    }

    /// What was done since the step before is the step `name`, for the times that machined tells.
    pub(crate) fn step(&self, name: &str) {
        let (mut steps, now) = (self.steps.borrow_mut(), sys::host::since_boot());
        let took = now.saturating_sub(steps.until);
        steps.done.push(name, took);
        steps.until = now;
    }

    /// The steps so far.
    pub(crate) fn steps(&self) -> InitSteps {
        self.steps.borrow().done.clone()
    }

    /// When this program started, since the kernel did.
    pub(crate) const fn started_at(&self) -> Duration {
        self.started
    }

    /// The kernel's log can be reached now. Without one there is still the console that the kernel opened.
    pub(crate) fn open(&self) {
        let mut state = self.state.borrow_mut();
        state.file =
            ["/dev/kmsg", "/dev/console"].iter().find_map(|path| OpenOptions::new().write(true).open(path).ok());
        for line in std::mem::take(&mut state.kept) {
            state.write(line);
        }
    }

    pub(crate) fn info(&self, message: &str) {
        self.line(6, message);
    }

    pub(crate) fn error(&self, message: &str) {
        self.line(3, message);
    }

    fn line(&self, priority: u8, message: &str) {
        let at = sys::host::since_boot().saturating_sub(self.started).as_secs_f64();
        self.state.borrow_mut().write(format!("<{priority}>[talos] [initramfs] {at:.3}s {message}\n"));
    }
}

impl State {
    fn write(&mut self, line: String) {
        match &mut self.file {
            // There is no other place to complain in.
            Some(file) => drop(file.write_all(line.as_bytes())),
            None => self.kept.push(line),
        }
    }
}
