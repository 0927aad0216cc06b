use super::*;

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
    switches_with_values(command()).debug_assert();
}
