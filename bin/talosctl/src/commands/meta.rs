//! `meta`: values of the META partition.

use clap::{Args, Subcommand};
use client::Client;

use crate::command_error::CommandError;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Args)]
pub(crate) struct MetaArgs {
    /// Asks a node in maintenance mode, without a client certificate
    #[arg(short, long, global = true)]
    insecure: bool,
    #[command(subcommand)]
    command: MetaCommand,
}

#[derive(Debug, Subcommand)]
enum MetaCommand {
    /// Deletes a value
    Delete {
        /// Number of the key, such as 10 or 0x0a
        #[arg(value_parser = key)]
        key: u8,
    },
    /// Writes a value
    Write {
        /// Number of the key, such as 10 or 0x0a
        #[arg(value_parser = key)]
        key: u8,
        value: String,
    },
}

pub(crate) async fn run(args: MetaArgs, session: &Session) -> Result<(), CommandError> {
    let change = async |client: Client| {
        let mut nodes = Replies::new(&session.out, &client);
        match &args.command {
            MetaCommand::Write { key, value } => {
                drop(nodes.take_all(client.meta_write(*key, value.clone().into_bytes()).await?));
            }
            MetaCommand::Delete { key } => drop(nodes.take_all(client.meta_delete(*key).await?)),
        }
        nodes.finish()
    };
    if args.insecure { session.on_insecure_nodes(&[], change).await } else { change(session.client().await?).await }
}

fn key(text: &str) -> Result<u8, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|key| *key > 0).ok_or_else(|| format!("{text:?} is not a number from 1 to 255"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decimal_or_hexadecimal_and_fit_a_byte() {
        assert_eq!((key("10"), key("0x0a"), key("0XFF")), (Ok(10), Ok(10), Ok(255)));
        for text in ["0", "256", "0x100", "ten", "-1", ""] {
            assert_eq!(key(text), Err(format!("{text:?} is not a number from 1 to 255")));
        }
    }
}
