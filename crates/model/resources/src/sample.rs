//! A filled value of every type, for tests: no field has its default, and no two fields of a type are alike by chance.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use serde_json::json;

use crate::values::{HardwareAddr, Nanoseconds, Pem, Timestamp, Url};
use crate::{Object, StringMap, config, k8s, network, revision};

/// The numbers 1, 2, 3, … up to 250, and again: each value that is made takes the next one.
#[derive(Debug, Default)]
pub(crate) struct Numbers(u8);

impl Numbers {
    pub(crate) fn next(&mut self) -> u8 {
        self.0 = self.0 % 250 + 1;
        self.0
    }

    /// A number from 0 up to `count`.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.next()) % count
    }
}

/// A type of which there is a filled value.
pub(crate) trait Sample {
    fn sample(next: &mut Numbers) -> Self;
}

/// The filled value of a type.
pub(crate) fn of<S: Sample>() -> S {
    S::sample(&mut Numbers::default())
}

macro_rules! samples {
    ($($type:ty: $next:ident => $value:expr;)*) => {$(
        impl Sample for $type {
            fn sample($next: &mut Numbers) -> Self {
                $value
            }
        }
    )*};
}

samples! {
    bool: next => next.next() > 0;
    u8: next => next.next();
    u16: next => next.next().into();
    u32: next => next.next().into();
    u64: next => next.next().into();
    i64: next => next.next().into();
    f64: next => f64::from(next.next()) + 0.25;
    String: next => format!("text {}", next.next());
    Pem: next => Pem::from(format!("PEM {}\n", next.next()));
    revision::ConfigText: next => format!("version: v{}\n", next.next()).into();
    Url: next => format!("https://10.5.0.{}:6443/path", next.next()).into();
    HardwareAddr: next => HardwareAddr(vec![0x4e, 0x95, 0x8e, 0x8f, 0xe4, next.next()]);
    Nanoseconds: next => Nanoseconds(i64::from(next.next()) * 1_500_000_000);
    Timestamp: next => Timestamp(Some(prost_types::Timestamp { seconds: 1_713_484_800 + i64::from(next.next()), nanos: 0 }));
    IpAddr: next => IpAddr::V4(Ipv4Addr::new(10, 5, 0, next.next()));
    IpNet: next => IpNet::new(IpAddr::V4(Ipv4Addr::new(10, next.next(), 0, 0)), 16).unwrap();
    SocketAddr: next => SocketAddr::new(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, next.next().into()).into(), 51820);
    StringMap: next => StringMap::from([(format!("key-{}", next.next()), String::sample(next))]);
    Object: next => match json!({ "kind": String::sample(next), "list": [next.next(), true, 0.5], "at": null }) {
        serde_json::Value::Object(object) => object,
        _ => Object::new(),
    };
    config::MachineConfig: next => Self::new(format!(
        "version: v1alpha1 # the schema\nmachine:\n    # who it is\n    type: worker\n    token: {}\n---\n\
         apiVersion: v1alpha1\nkind: KmsgLogConfig\nname: remote\nurl: udp://10.5.0.1:514/\n",
        String::sample(next),
    ));
    k8s::StaticPod: next => Self { pod: Object::sample(next) };
    k8s::StaticPodStatus: next => Self { pod_status: Object::sample(next) };
    network::DeviceConfigSpec: next => Self { device: Object::sample(next) };
    network::DnsUpstream: next => Self { healthy: next.next() > 0, address: Some(SocketAddr::sample(next)) };
}

impl<T: Sample> Sample for Option<T> {
    fn sample(next: &mut Numbers) -> Self {
        Some(T::sample(next))
    }
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(next: &mut Numbers) -> Self {
        vec![T::sample(next), T::sample(next)]
    }
}
