//! Samples that stand out from those before them: a packet that was held up on the way tells a wrong time once.

use std::collections::VecDeque;

use crate::packet::Sample;

/// How many samples are remembered.
const SAMPLES: usize = 8;
/// The first sample that can be one.
const FIRST: usize = 4;
/// How far a sample may move, in jitters.
const JITTERS: f64 = 3.0;

/// The last samples.
#[derive(Debug, Default)]
pub(crate) struct Spikes {
    samples: VecDeque<Sample>,
}

impl Spikes {
    /// Remembers a sample and says whether it is a spike: within its own round trip, and moved by more than three jitters.
    /// Jitter is the mean distance of the remembered samples from the one with the shortest round trip.
    pub(crate) fn is_spike(&mut self, sample: Sample) -> bool {
        let jitter = self.jitter();
        let moved = self.samples.back().map(|last| sample.offset.since(last.offset).seconds().abs());
        let is_spike = self.samples.len() + 1 >= FIRST
            && sample.offset.size() <= sample.round_trip
            && moved.is_some_and(|moved| moved > JITTERS * jitter);
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        is_spike
    }

    /// Forgets all samples, as when the clock was set.
    pub(crate) fn clear(&mut self) {
        self.samples.clear();
    }

    fn jitter(&self) -> f64 {
        let Some(best) = self.samples.iter().min_by_key(|sample| sample.round_trip) else { return 0.0 };
        let squares = self.samples.iter().map(|sample| sample.offset.since(best.offset).seconds().powi(2));
        let count = u32::try_from(self.samples.len().saturating_sub(1).max(1)).unwrap_or(u32::MAX);
        (squares.sum::<f64>() / f64::from(count)).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::offset::Offset;
    use crate::packet::Leap;

    fn sample(millis: i64, round_trip: u64) -> Sample {
        let round_trip = Duration::from_millis(round_trip);
        Sample { offset: Offset::from_millis(millis), round_trip, leap: Leap::None, is_local: false }
    }

    #[test]
    fn one_sample_that_stands_out_is_a_spike_from_the_fourth_on() {
        let mut spikes = Spikes::default();
        for (millis, round_trip) in [(1, 20), (15, 100), (2, 20)] {
            assert!(!spikes.is_spike(sample(millis, round_trip)));
        }
        assert!(!spikes.is_spike(sample(1, 20)));
        assert!(spikes.is_spike(sample(90, 200)));
        assert!(!spikes.is_spike(sample(250, 200)), "the clock is really off");
    }

    #[test]
    fn a_clock_that_was_set_has_no_history() {
        let mut spikes = Spikes::default();
        for _ in 0..8 {
            spikes.is_spike(sample(1, 20));
        }
        spikes.clear();
        assert!(!spikes.is_spike(sample(15, 20)));
    }
}
