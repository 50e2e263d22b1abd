package config

import (
	"os"
	"strings"
	"testing"
)

func TestReadme_ListsEveryKeyWithItsDefault(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(string(b)) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	readme := strings.Join(rows, "\n")
	for _, k := range Keys() {
		row := "\n| `" + k.Name + "` | `" + k.Default + "` |"
		if k.Default == "" {
			row = "\n| `" + k.Name + "` | |"
		}
		if !strings.Contains(readme, row) {
			t.Errorf("README.md has no row that begins %q", strings.TrimSpace(row))
		}
	}
}
