//! `etcd`: the members of the etcd cluster.

use clap::Subcommand;
use wire::machine::EtcdMember;

use crate::command_error::CommandError;
use crate::output::table::Table;
use crate::replies::Replies;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum EtcdCommand {
    /// Lists the members of etcd
    Members,
}

pub(crate) async fn run(command: EtcdCommand, session: &Session) -> Result<(), CommandError> {
    match command {
        EtcdCommand::Members => members(session).await,
    }
}

async fn members(session: &Session) -> Result<(), CommandError> {
    let client = session.client().await?;
    let mut nodes = Replies::new(&session.out, &client);
    let mut table = Table::new(["NODE", "ID", "HOSTNAME", "PEER URLS", "CLIENT URLS", "LEARNER"]);
    for (node, reply) in nodes.take_all(client.etcd_members(false).await?) {
        for member in &reply.members {
            table.row(cells(&node, member));
        }
    }
    nodes.print(&mut table)?;
    nodes.finish()
}

fn cells(node: &str, member: &EtcdMember) -> [String; 6] {
    [
        node.to_owned(),
        format!("{:016x}", member.id),
        member.hostname.clone(),
        member.peer_urls.join(","),
        member.client_urls.join(","),
        member.is_learner.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_ids_are_sixteen_hexadecimal_digits() {
        let member = EtcdMember { id: 0xbeef, is_learner: true, ..Default::default() };
        assert_eq!(cells("n", &member), ["n", "000000000000beef", "", "", "", "true"]);
    }
}
