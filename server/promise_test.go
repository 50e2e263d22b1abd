package server

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPromise_NamesOnlyTestsThatExist holds docs/promise.md against the tests.
func TestPromise_NamesOnlyTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../docs/promise.md")
	if err != nil {
		t.Fatal(err)
	}
	declared := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
	err = filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range function.FindAllSubmatch(b, -1) {
			declared[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	suite, err := os.ReadFile("saver/savertest/savertest.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Benchmark)\\w+)`").FindAllSubmatch(page, -1)
	if len(names) < 30 {
		t.Errorf("the page names %d tests", len(names))
	}
	for _, n := range names {
		if !declared[string(n[1])] {
			t.Errorf("docs/promise.md names %s, which is not there", n[1])
		}
	}
	for _, n := range regexp.MustCompile(`savertest/(\w+)`).FindAllSubmatch(page, -1) {
		if !strings.Contains(string(suite), `{"`+string(n[1])+`", `) {
			t.Errorf("docs/promise.md names the group %s of savertest, which is not there", n[1])
		}
	}
}
