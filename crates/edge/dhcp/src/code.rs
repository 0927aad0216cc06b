//! The options in use.

macro_rules! codes {
    ($($name:ident = $number:literal,)*) => {
        /// The code of an option.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names of the options")]
        pub enum Code {
            $($name,)*
        }

        impl Code {
            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                }
            }
        }
    };
}

codes! {
    Pad = 0,
    SubnetMask = 1,
    Router = 3,
    DnsServers = 6,
    HostName = 12,
    DomainName = 15,
    Mtu = 26,
    Broadcast = 28,
    NtpServers = 42,
    RequestedAddress = 50,
    LeaseTime = 51,
    Overload = 52,
    MessageType = 53,
    ServerId = 54,
    ParameterList = 55,
    Text = 56,
    MaxSize = 57,
    RenewalTime = 58,
    RebindingTime = 59,
    VendorClass = 60,
    TftpServer = 66,
    BootFile = 67,
    UserClass = 77,
    ClientArchitecture = 93,
    DomainSearch = 119,
    ClasslessRoutes = 121,
    End = 255,
}
