"""The devices that ship with the package: one TOML file each, in the format of docs/devices.md."""
