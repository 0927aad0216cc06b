//! Container runtime settings.

use crate::object::Object;

resource! {
    /// A seccomp profile for containers.
    SeccompProfile: "SeccompProfiles.cri.talos.dev" in "cri",
    {
        name: String = 1 "name",
        value: Object = 2 "value",
    }
}
