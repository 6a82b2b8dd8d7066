//! Networks and endpoints: bridge, host, none; addresses; published ports.
