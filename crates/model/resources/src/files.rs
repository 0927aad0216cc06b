//! Files in `/etc`.

resource! {
    /// A file to create in `/etc`; the id is its name.
    EtcFileSpec: "EtcFileSpecs.files.talos.dev" in "files" sensitive,
    {
        contents: Vec<u8> = 1 "contents",
        mode: u32 = 2 "mode",
    }
}

resource! {
    /// A file present in `/etc`.
    EtcFileStatus: "EtcFileStatuses.files.talos.dev" in "files",
    {
        spec_version: String = 1 "specVersion",
    }
}
