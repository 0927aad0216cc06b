//! Tests of the whole system, in `tests/system`. This library is empty, as a package needs a target besides its tests.
