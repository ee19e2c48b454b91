"""Systems to compare with: `separate(mixture, tracks) -> stems` each, some with a network as third argument."""
