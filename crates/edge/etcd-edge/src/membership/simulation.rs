//! One to five nodes, driven through crashes, power cuts, lost disks, delays and lost messages in an order that a seed decides.
//! etcd here keeps what the real one promises: it changes its members by quorum, has one learner at a time, and compares the
//! addresses that a new member starts with.

use super::*;

/// How many seeds a run of the tests takes; `TEST_SEEDS` replaces it.
const SEEDS: u64 = 10_000;
/// Actions under faults, and the most without them that nodes may take to become one cluster.
const FAULTY: usize = 400;
const CALM: usize = 4_000;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(value).unwrap() % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

#[derive(Debug, Default)]
struct Node {
    data: Option<MemberId>,
    record: Option<Record>,
    may_found: bool,
    /// The power is on.
    is_on: bool,
    /// etcd runs.
    runs: bool,
    /// What it saw of the cluster when it last asked.
    seen: Option<Cluster>,
    stuck_for: Duration,
    last: Option<(Option<Cluster>, Option<Running>)>,
}

struct World {
    random: Random,
    nodes: Vec<Node>,
    members: Vec<Member>,
    next_id: u64,
    /// A node that never catches up before this action.
    slow: (usize, usize),
    /// Decisions are carried out before anything else happens; etcd then relies on them alone.
    is_prompt: bool,
    has_faults: bool,
    now: usize,
    history: Vec<String>,
}

fn url(node: usize) -> String {
    format!("https://10.5.0.{}:2380", node + 2)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let count = 1 + random.below(5);
        let nodes = (0..count).map(|_| Node { is_on: true, ..Node::default() }).collect();
        let (is_prompt, slow) = (random.one_in(2), (random.below(count * 2), random.below(FAULTY * 2)));
        let mut world = Self {
            random,
            nodes,
            members: Vec::new(),
            next_id: 1,
            slow,
            is_prompt,
            has_faults: true,
            now: 0,
            history: Vec::new(),
        };
        let founder = world.random.below(count);
        world.nodes[founder].may_found = true;
        world
    }

    fn node_of(&self, id: MemberId) -> Option<usize> {
        self.nodes.iter().position(|node| node.data == Some(id))
    }

    fn runs(&self, id: MemberId) -> bool {
        self.node_of(id).is_some_and(|node| self.nodes[node].is_on && self.nodes[node].runs)
    }

    fn has_quorum(&self) -> bool {
        let voting: Vec<MemberId> =
            self.members.iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
        !voting.is_empty() && voting.iter().filter(|id| self.runs(**id)).count() > voting.len() / 2
    }

    fn running(&self, node: usize) -> Option<Running> {
        let id = self.nodes[node].data.filter(|_| self.nodes[node].runs)?;
        let member = self.members.iter().find(|member| member.id == id)?;
        Some(Running { id, is_learner: member.is_learner })
    }

    /// A node asks the others. An answer may be lost, as a whole or of a member.
    fn look(&mut self, node: usize) {
        let lossy = self.has_faults;
        let others = self.members.iter().any(|member| self.node_of(member.id) != Some(node) && self.runs(member.id));
        let answered = others && self.has_quorum() && !(lossy && self.random.one_in(4));
        let mut seen = None;
        if answered {
            let mut running = BTreeSet::new();
            for member in self.members.clone() {
                if self.runs(member.id) && !(lossy && self.random.one_in(8)) {
                    running.insert(member.id);
                }
            }
            seen = Some(Cluster { members: self.members.clone(), running });
        }
        let what = (seen.clone(), self.running(node));
        let passed = Duration::from_secs(3 + self.random.below(60) as u64);
        let node = &mut self.nodes[node];
        node.stuck_for = if node.last.as_ref() == Some(&what) { node.stuck_for + passed } else { Duration::ZERO };
        node.last = Some(what);
        node.seen = seen;
    }

    fn act(&mut self, index: usize) -> Step {
        let node = &self.nodes[index];
        let own = Own {
            name: format!("cp-{index}"),
            peer_urls: vec![url(index)],
            has_data: node.data.is_some(),
            record: node.record,
            may_found: node.may_found,
            running: self.running(index),
            stuck_for: node.stuck_for,
        };
        let step = decide(&own, node.seen.as_ref());
        self.history.push(format!("{}: node {index} {step:?}", self.now));
        self.carry_out(index, &step);
        step
    }

    fn carry_out(&mut self, index: usize, step: &Step) {
        // A request may get lost; so may its answer, which nobody remembers to wait for.
        let asks = matches!(step, Step::AddLearner | Step::Promote(_) | Step::Remove(..));
        if asks && (!self.has_quorum() || (self.has_faults && self.random.one_in(4))) {
            return;
        }
        match step {
            Step::Settled | Step::Wait(_) => {}
            Step::Keep(record) => self.nodes[index].record = Some(*record),
            Step::Run(start) => self.start(index, start),
            Step::AddLearner => self.add(index),
            Step::Promote(id) => self.promote(index, *id),
            Step::Remove(id, why) => self.remove(index, *id, *why),
            Step::Wipe => {
                let id = self.nodes[index].data.take().unwrap();
                let member = self.members.iter().find(|member| member.id == id);
                assert!(member.is_none_or(|member| member.is_learner), "data of a voting member were wiped");
                self.nodes[index].runs = false;
            }
        }
    }

    fn start(&mut self, index: usize, start: &Start) {
        match start {
            Start::Found => {
                assert!(self.members.is_empty(), "a second cluster was founded");
                assert!(self.nodes[index].may_found && self.nodes[index].data.is_none());
                let id = self.new_member(index, false);
                self.begin(index, id);
            }
            Start::Join(all) => {
                let mut wanted: Vec<&String> = all.iter().map(|(_, url)| url).collect();
                let mut known: Vec<&String> = self.members.iter().flat_map(|member| &member.peer_urls).collect();
                wanted.sort();
                known.sort();
                let own = self.members.iter().find(|member| member.peer_urls.contains(&url(index)));
                let labels: BTreeSet<&String> = all.iter().map(|(label, _)| label).collect();
                assert_eq!(labels.len(), all.len(), "two members of one label");
                match own.map(|own| (own.id, own.name.is_empty())) {
                    Some((id, is_new)) if wanted == known => {
                        assert!(is_new, "a member that had started has lost what it promised to keep");
                        self.begin(index, id);
                    }
                    _ => {}
                }
            }
            Start::Resume => {
                let id = self.nodes[index].data.unwrap();
                self.nodes[index].runs = self.members.iter().any(|member| member.id == id);
            }
        }
    }

    fn begin(&mut self, index: usize, id: MemberId) {
        let name = format!("cp-{index}");
        self.members.iter_mut().filter(|member| member.id == id).for_each(|member| member.name.clone_from(&name));
        let node = &mut self.nodes[index];
        (node.data, node.runs, node.may_found) = (Some(id), true, false);
    }

    fn new_member(&mut self, index: usize, is_learner: bool) -> MemberId {
        let id = MemberId(self.next_id);
        self.next_id += 1;
        let (name, client_urls) = (String::new(), Vec::new());
        self.members.push(Member { id, name, peer_urls: vec![url(index)], client_urls, is_learner });
        id
    }

    fn add(&mut self, index: usize) {
        let is_known = self.members.iter().any(|member| member.peer_urls.contains(&url(index)));
        let has_learner = self.members.iter().any(|member| member.is_learner);
        assert!(!self.is_prompt || !has_learner, "two nodes join at a time");
        if !is_known && !has_learner {
            self.new_member(index, true);
        }
    }

    fn promote(&mut self, index: usize, id: MemberId) {
        let is_behind = self.slow.0 == index && self.now < self.slow.1;
        if self.runs(id) && !is_behind && !self.random.one_in(3) {
            self.members.iter_mut().filter(|member| member.id == id).for_each(|member| member.is_learner = false);
        }
    }

    fn remove(&mut self, index: usize, id: MemberId, why: Removal) {
        let Some(position) = self.members.iter().position(|member| member.id == id) else { return };
        let is_own = self.nodes[index].data == Some(id);
        let is_voting = !self.members[position].is_learner;
        assert!(is_own || !is_voting || !self.runs(id), "a voting member that runs was removed ({why:?})");
        let running = self.members.iter().map(|member| member.id).filter(|id| self.runs(*id)).collect();
        let cluster = Cluster { members: self.members.clone(), running };
        if !cluster.can_lose(id) {
            assert!(!self.is_prompt, "a removal would have taken the quorum ({why:?})");
            return;
        }
        self.members.remove(position);
        if let Some(node) = self.node_of(id) {
            self.nodes[node].runs = false;
        }
    }

    /// Something goes wrong, in a way that leaves a cluster that can go on.
    fn fault(&mut self) {
        let index = self.random.below(self.nodes.len());
        match self.random.below(5) {
            0 => self.nodes[index].runs = false,
            1 => {
                let node = &mut self.nodes[index];
                (node.is_on, node.runs, node.seen, node.last, node.stuck_for) =
                    (false, false, None, None, Duration::ZERO);
            }
            2 | 3 => self.nodes[index].is_on = true,
            _ => {
                let voting: Vec<MemberId> =
                    self.members.iter().filter(|member| !member.is_learner).map(|member| member.id).collect();
                let keep = |id: &&MemberId| self.node_of(**id).is_some_and(|node| node != index);
                let kept = voting.iter().filter(keep).count();
                if !self.members.is_empty() && kept > voting.len() / 2 {
                    let node = &mut self.nodes[index];
                    // A disk is not lost under a node that runs: it starts anew, and looks again.
                    (node.data, node.runs, node.seen, node.last) = (None, false, None, None);
                    self.history.push(format!("{}: node {index} loses its data", self.now));
                }
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..FAULTY {
            self.now += 1;
            if self.random.one_in(6) {
                self.fault();
            }
            self.turn();
        }
        self.has_faults = false;
        self.nodes.iter_mut().for_each(|node| node.is_on = true);
        let nodes = self.nodes.len();
        for _ in 0..CALM {
            self.now += 1;
            self.turn();
            let voting = self.members.iter().filter(|member| !member.is_learner && self.runs(member.id)).count();
            if voting == nodes && self.members.len() == nodes {
                return;
            }
        }
        panic!("the nodes do not become one cluster: {:?}", self.members);
    }

    fn turn(&mut self) {
        let index = self.random.below(self.nodes.len());
        if !self.nodes[index].is_on {
            return;
        }
        if self.is_prompt || self.random.one_in(2) {
            self.look(index);
        }
        if self.is_prompt || self.random.one_in(2) {
            self.act(index);
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test program is configured by its environment")]
fn nodes_become_one_cluster_through_every_fault() {
    let seeds = std::env::var("TEST_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let mut world = World::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
        if let Err(panic) = ran {
            let from = world.history.len().saturating_sub(30);
            println!("seed {seed}:\n{}", world.history[from..].join("\n"));
            std::panic::resume_unwind(panic);
        }
    }
}
