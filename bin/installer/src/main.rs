//! `installer`: the entry point of the installer image.

fn main() -> anyhow::Result<()> {
    anyhow::bail!("nothing can be installed yet")
}
