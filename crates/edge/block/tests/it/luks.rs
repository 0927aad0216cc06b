//! Headers that cryptsetup makes, in files: this needs no device mapper. Opening volumes is a test of machines.

use std::fs::File;

use block::luks::{Cryptsetup, Luks as _, LuksError};
use block::probe;
use machine::encryption::{Encryption, Header, Token, UNFINISHED};
use stdx::Secret;

use crate::MIB;

#[tokio::test]
async fn keys_of_a_header_come_and_go_and_its_tokens_and_label_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("volume");
    File::create(&device).unwrap().set_len(32 * MIB).unwrap();
    let luks = Cryptsetup::weak();
    assert!(matches!(luks.header(&device).await, Err(LuksError::Tool { .. })), "there is none");
    let key = |text: &str| Secret::new(text.to_owned());
    // A line's end is a part of a passphrase.
    let (first, second) = (key("first"), key("second\nwith a line"));
    let mut how = Encryption::default().with_keys(Vec::new());
    how.block_size = 4096;
    luks.format(&device, &how, 3, &first).await.unwrap();
    let label = || probe::probe(&mut File::open(&device).unwrap(), 32 * MIB).unwrap().unwrap();
    assert_eq!((label().name, label().label.as_str()), ("luks", UNFINISHED));
    assert_eq!(luks.header(&device).await.unwrap(), Header { slots: [3].into(), tokens: [].into() });
    assert!(luks.fits(&device, 3, &first).await.unwrap() && !luks.fits(&device, 3, &second).await.unwrap());

    luks.add(&device, &first, 0, &second).await.unwrap();
    assert!(matches!(luks.add(&device, &key("wrong"), 1, &second).await, Err(LuksError::Tool { .. })));
    assert!(matches!(luks.add(&device, &first, 0, &second).await, Err(LuksError::Tool { .. })), "it is taken");
    let tokens = [(0, Token::Kms(b"two".into())), (5, Token::Recovery)];
    luks.set_token(&device, 0, Token::Kms(b"one".into()).to_json(0).as_deref()).await.unwrap();
    luks.set_token(&device, 0, tokens[0].1.to_json(0).as_deref()).await.unwrap();
    luks.set_token(&device, 5, tokens[1].1.to_json(3).as_deref()).await.unwrap();
    assert_eq!(luks.header(&device).await.unwrap(), Header { slots: [0, 3].into(), tokens: tokens.into() });
    luks.set_token(&device, 5, None).await.unwrap();
    luks.kill(&device, 3).await.unwrap();
    assert!(luks.fits(&device, 0, &second).await.unwrap());
    luks.set_label(&device, "").await.unwrap();
    assert_eq!(label().label, "");
    luks.close("no-such-volume").await.unwrap();
}
