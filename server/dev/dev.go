// Package dev is the file that a development server leaves for its developer: dev.json in the data directory. `carillon
// serve --dev` writes it, and the other commands read their addresses and credentials from it, so that they work without
// an argument. It holds secrets in the clear and is readable by its owner alone.
package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FileName is the file's name in the data directory.
const FileName = "dev.json"

// SecretMark begins every secret that a development server made up. A server that is not for development refuses it.
const SecretMark = "dev-"

// File is what the file holds.
type File struct {
	Warning  string `json:"warning"`
	Public   string `json:"public"`        // URL of the public listener, as in http://127.0.0.1:8080
	Admin    string `json:"admin"`         // URL of the admin listener
	TCP      string `json:"tcp,omitempty"` // that of the listener for raw TCP, as in tcp://127.0.0.1:8082; empty: there is none
	Secret   string `json:"secret"`        // of the administration
	Product  string `json:"product"`       // the product that was made
	KeyID    string `json:"key_id"`        // of the device key, HS256
	Key      []byte `json:"key"`           // its 32 bytes, in JSON as base64
	APIKey   string `json:"api_key"`       // with every scope
	APIKeyID string `json:"api_key_id"`
}

// Path returns where the file of a data directory lies.
func Path(data string) string { return filepath.Join(data, FileName) }

// Load reads the file of a data directory. The error is fs.ErrNotExist if there is none.
func Load(data string) (File, error) {
	var f File
	b, err := os.ReadFile(Path(data))
	if err != nil {
		return f, fmt.Errorf("dev: %w", err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return f, fmt.Errorf("dev: %s is damaged; delete it, and the server makes another: %w", Path(data), err)
	}
	return f, nil
}

// Save writes the file into a data directory, readable by its owner alone, in one step.
func (f File) Save(data string) error {
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	tmp, err := os.CreateTemp(data, FileName+".*") // made with 0600
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), Path(data))
	}
	if err != nil {
		return fmt.Errorf("dev: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// IsMissing reports whether err says that there is no file.
func IsMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
