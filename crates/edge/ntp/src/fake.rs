//! Servers and a clock in memory.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::ask::{Ask, AskError};
use crate::client::{Adjustment, Target};
use crate::clock::{AdjtimeState, SystemTime, TimeError};
use crate::offset::Offset;
use crate::packet::{Answer, Leap, Sample};

/// Servers by name; clones share them.
#[derive(Debug, Clone, Default)]
pub struct FakeAsk {
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    silent: Arc<Mutex<HashSet<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeAsk {
    /// Gives a server an answer.
    pub fn answers(&self, server: &str, answer: Answer) {
        self.answers.lock().insert(server.to_owned(), answer);
    }

    /// Lets a server tell an offset in milliseconds.
    pub fn tells(&self, server: &str, millis: i64) {
        let round_trip = Duration::from_millis(10);
        let offset = Offset::from_millis(millis);
        self.answers(server, Answer::Sample(Sample { offset, round_trip, leap: Leap::None, is_local: false }));
    }

    /// Lets a server never answer: the question to it does not end.
    pub fn silence(&self, server: &str) {
        self.silent.lock().insert(server.to_owned());
    }

    /// The servers that were asked, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

#[async_trait]
impl Ask for FakeAsk {
    async fn ask(&self, target: &Target) -> Result<(Answer, Option<IpAddr>), AskError> {
        self.asked.lock().push(target.server.clone());
        if self.silent.lock().contains(&target.server) {
            std::future::pending::<()>().await;
        }
        let answer = self.answers.lock().get(&target.server).copied();
        let answer = answer.ok_or_else(|| AskError::NoAddress { server: target.server.clone() })?;
        Ok((answer, Some([192, 0, 2, 1].into())))
    }
}

/// A clock that remembers how it was adjusted; clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeTime {
    adjustments: Arc<Mutex<Vec<Adjustment>>>,
    advances: Arc<Mutex<Vec<Duration>>>,
    state: Arc<Mutex<AdjtimeState>>,
}

impl FakeTime {
    /// What was done to it.
    #[must_use]
    pub fn adjustments(&self) -> Vec<Adjustment> {
        self.adjustments.lock().clone()
    }

    /// How far it was set forward, each time.
    #[must_use]
    pub fn advances(&self) -> Vec<Duration> {
        self.advances.lock().clone()
    }

    /// What it says about itself from now on.
    pub fn set_state(&self, state: AdjtimeState) {
        *self.state.lock() = state;
    }
}

impl SystemTime for FakeTime {
    fn adjust(&self, adjustment: Adjustment) -> Result<(), TimeError> {
        self.adjustments.lock().push(adjustment);
        Ok(())
    }

    fn advance(&self, by: Duration) -> Result<(), TimeError> {
        self.advances.lock().push(by);
        Ok(())
    }

    fn state(&self) -> Result<AdjtimeState, TimeError> {
        Ok(self.state.lock().clone())
    }
}
