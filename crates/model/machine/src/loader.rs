//! systemd-boot on UEFI machines: names of kernel images with their boot counters, and the variables that it reads.

/// Directory of kernel images on the EFI partition.
pub const IMAGES: &str = "EFI/Linux";
/// Where firmware looks for a boot loader on a disk.
pub const REMOVABLE_PATH: &str = "EFI/boot/BOOTX64.EFI";
/// Vendor of the variables of boot loaders.
pub const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Variable: the entry that is started without a choice of the operator.
pub const DEFAULT_ENTRY: &str = "LoaderEntryDefault";
/// Variable: the entry that is started the next time and only then.
pub const NEXT_ENTRY: &str = "LoaderEntryOneShot";
/// Variable: seconds that the menu is shown.
pub const TIMEOUT: &str = "LoaderConfigTimeout";
pub const TIMEOUT_SECONDS: &str = "5";
/// Variable: the entry that was started.
pub const SELECTED_ENTRY: &str = "LoaderEntrySelected";
/// Variable that the stub of a unified kernel image sets.
pub const STUB_INFO: &str = "StubInfo";
/// Attributes of the variables that are written: non-volatile, for boot services, at run time.
pub const ATTRIBUTES: u32 = 0x7;
/// Boots that a new version has to show itself good in.
pub const TRIES: u32 = 3;
const PREFIX: &str = "Talos-";
const SUFFIX: &str = ".efi";

/// What the name of a second image of one version ends in.
const AGAIN: &str = "~2";

/// The name of a kernel image: `Talos-VERSION.efi`, `talos-VERSION+LEFT.efi`, `talos-VERSION+LEFT-FAILED.efi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// `v1.7.0`, or `v1.7.0~2` of an image that came beside another one of this version.
    pub version: String,
    /// None: the image is good, or is not counted.
    pub tries: Option<Tries>,
}

/// A boot counter, as systemd-boot keeps it in the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    pub left: u32,
    pub failed: u32,
}

impl ImageName {
    /// The name of a version that was not booted yet and has to show itself good.
    #[must_use]
    pub fn on_trial(version: &str) -> Self {
        Self { version: version.to_owned(), tries: Some(Tries { left: TRIES, failed: 0 }) }
    }

    /// The name of a version that comes beside the booted entry, which may be of the same version: names tell images apart.
    #[must_use]
    pub fn beside(version: &str, booted: Option<&str>) -> Self {
        let name = Self::on_trial(version);
        let is_taken = booted.and_then(Self::parse).is_some_and(|booted| booted.is_same_image(&name));
        if is_taken { Self::on_trial(&format!("{version}{AGAIN}")) } else { name }
    }

    /// The version, without what tells images of it apart.
    #[must_use]
    pub fn shown_version(&self) -> &str {
        self.version.strip_suffix(AGAIN).unwrap_or(&self.version)
    }

    /// The name of a version that is good.
    #[must_use]
    pub fn good(version: &str) -> Self {
        Self { version: version.to_owned(), tries: None }
    }

    /// Reads a file name; case does not matter, as on the EFI partition. `None` for files that are no images of this system.
    #[must_use]
    pub fn parse(file: &str) -> Option<Self> {
        let prefix = file.get(..PREFIX.len()).filter(|prefix| prefix.eq_ignore_ascii_case(PREFIX))?;
        let end = file.len().checked_sub(SUFFIX.len()).filter(|end| *end > prefix.len())?;
        file.get(end..).filter(|suffix| suffix.eq_ignore_ascii_case(SUFFIX))?;
        let stem = file.get(PREFIX.len()..end)?;
        let counted = stem.rsplit_once('+').and_then(|(version, counter)| Some((version, counter_of(counter)?)));
        match counted {
            Some((version, tries)) if !version.is_empty() => Some(Self { version: version.into(), tries: Some(tries) }),
            _ => Some(Self { version: stem.to_owned(), tries: None }),
        }
    }

    /// Whether both are the same image, whatever their counters say.
    #[must_use]
    pub fn is_same_image(&self, other: &Self) -> bool {
        self.version.eq_ignore_ascii_case(&other.version)
    }

    /// The id of the boot menu's entry: the name without the counter.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("{PREFIX}{}{SUFFIX}", self.version)
    }
}

/// The name of the file. One with a counter is in lower case: systemd-boot looks for entries in lower case, and takes the names of
/// counted images as they are.
impl std::fmt::Display for ImageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { version, tries } = self;
        let Some(Tries { left, failed }) = tries else { return write!(f, "{PREFIX}{version}{SUFFIX}") };
        let counter = if *failed == 0 { left.to_string() } else { format!("{left}-{failed}") };
        f.write_str(&format!("{PREFIX}{version}+{counter}{SUFFIX}").to_lowercase())
    }
}

fn counter_of(text: &str) -> Option<Tries> {
    let number =
        |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?;
    match text.split_once('-') {
        None => Some(Tries { left: number(text)?, failed: 0 }),
        Some((left, failed)) => Some(Tries { left: number(left)?, failed: number(failed)? }),
    }
}

/// Images to delete before `new` is written: all of this system but the booted one. `booted` is the id of the running entry.
#[must_use]
pub fn obsolete<'a>(files: &'a [String], booted: Option<&str>, new: &ImageName) -> Vec<&'a str> {
    let booted = booted.and_then(ImageName::parse);
    let is_obsolete = |file: &&str| {
        let Some(image) = ImageName::parse(file) else { return false };
        // A second image of the new version would be a second entry of the same id.
        image.is_same_image(new) || !booted.as_ref().is_some_and(|booted| booted.is_same_image(&image))
    };
    files.iter().map(String::as_str).filter(is_obsolete).collect()
}

/// The text of a variable as it is stored.
#[must_use]
pub fn encode_variable(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// The text of a stored variable, up to its NUL.
#[must_use]
pub fn decode_variable(bytes: &[u8]) -> String {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    String::from_utf16_lossy(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_boot_counter() {
        let tries = |left, failed| Some(Tries { left, failed });
        let cases = [
            ("Talos-v1.7.0.efi", "v1.7.0", None),
            ("Talos-v1.7.0+3.efi", "v1.7.0", tries(3, 0)),
            ("Talos-v1.7.0+2-1.efi", "v1.7.0", tries(2, 1)),
            ("Talos-v1.7.0+build.efi", "v1.7.0+build", None),
            ("Talos-v1.7.0+build+0-3.efi", "v1.7.0+build", tries(0, 3)),
        ];
        for (file, version, tries) in cases {
            let name = ImageName::parse(file).unwrap();
            let counted = if tries.is_some() { file.to_lowercase() } else { file.to_owned() };
            assert_eq!((name.version.as_str(), name.tries, name.to_string()), (version, tries, counted.clone()));
            assert_eq!(ImageName::parse(&counted), Some(name));
        }
        assert_eq!(ImageName::on_trial("v1").to_string(), "talos-v1+3.efi");
        assert_eq!(ImageName::on_trial("v1").entry(), "Talos-v1.efi");
        let beside = |booted| ImageName::beside("v1", booted).to_string();
        assert_eq!(beside(None), "talos-v1+3.efi");
        assert_eq!(beside(Some("talos-v0.efi")), "talos-v1+3.efi");
        assert_eq!(beside(Some("Talos-V1.efi")), "talos-v1~2+3.efi");
        assert_eq!(beside(Some("Talos-v1~2.efi")), "talos-v1+3.efi");
        assert_eq!(ImageName::good("v1~2").shown_version(), "v1");
        assert_eq!(ImageName::parse("TALOS-V1.7.0.EFI"), Some(ImageName::good("V1.7.0")));
        for foreign in ["other.efi", "Talos-.efi", "Talos-", "", "Talos-v1.img", "Tälos-v1.efi"] {
            assert_eq!(ImageName::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_booted_image_stays_beside_the_new_one() {
        let files = ["TALOS-V1.efi", "Talos-v2+0-3.efi", "Talos-v3.efi", "other.efi"].map(String::from);
        assert_eq!(
            obsolete(&files, Some("talos-v1.efi"), &ImageName::good("v3")),
            ["Talos-v2+0-3.efi", "Talos-v3.efi"]
        );
        assert_eq!(
            obsolete(&files, None, &ImageName::good("v4")),
            ["TALOS-V1.efi", "Talos-v2+0-3.efi", "Talos-v3.efi"]
        );
    }

    #[test]
    fn variables_are_utf16_with_an_end() {
        assert_eq!(encode_variable("5"), [0x35, 0, 0, 0]);
        assert_eq!(decode_variable(&encode_variable("Talos-ä.efi")), "Talos-ä.efi");
        assert_eq!(decode_variable(&[0x35]), "");
    }
}
