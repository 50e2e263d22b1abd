//go:build !linux

package sample

import "time"

var began = time.Now()

// Monotonic returns nanoseconds on a clock of this process.
func Monotonic() int64 { return int64(time.Since(began)) }

// CPU fails: see [ErrLinux].
func CPU(int) (time.Duration, error) { return 0, ErrLinux }

// Resident fails: see [ErrLinux].
func Resident(int) (Memory, error) { return Memory{}, ErrLinux }

// KernelMemory fails: see [ErrLinux].
func KernelMemory() (Kernel, error) { return Kernel{}, ErrLinux }

// CommandLine fails: see [ErrLinux].
func CommandLine(int) ([]string, error) { return nil, ErrLinux }

// Environ fails: see [ErrLinux].
func Environ(int) ([]string, error) { return nil, ErrLinux }

// OpenFiles fails: see [ErrLinux].
func OpenFiles(int) (soft, hard uint64, err error) { return 0, 0, ErrLinux }

// RaiseOpenFiles fails: see [ErrLinux].
func RaiseOpenFiles() (uint64, error) { return 0, ErrLinux }

// Filesystem fails: see [ErrLinux].
func Filesystem(string) (string, error) { return "", ErrLinux }

// This fails: see [ErrLinux].
func This() (Machine, error) { return Machine{}, ErrLinux }
