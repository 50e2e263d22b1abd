package catalog

import (
	"strings"
	"testing"
)

func TestCheckJWKS_TakesHTTPSAndThisMachine(t *testing.T) {
	for address, want := range map[string]bool{
		"https://example.com/keys":       true,
		"https://example.com":            true,
		"https://example.com:8443/a?b=c": true,
		"https://[2001:db8::1]/keys":     true, // whether it may be reached is judged when it is
		"https://10.0.0.1/keys":          true,
		"http://localhost:8000/keys":     true,
		"http://127.0.0.1/keys":          true,
		"http://[::1]:1/keys":            true,

		"":                              false,
		"example.com/keys":              false,
		"//example.com/keys":            false,
		"http://example.com/keys":       false,
		"http://localhost.example.com/": false,
		"http://127.0.0.1.example.com/": false,
		"http://10.0.0.1/":              false,
		"https://":                      false,
		"https:example.com":             false,
		"https:///keys":                 false,
		"https://user@example.com/":     false,
		"https://u:p@example.com/":      false,
		"https://example.com/#key":      false,
		"https://example.com/#":         false,
		"https://example.com/a b":       false,
		"https://example.com/ä":         false,
		"https://example.com/\n":        false,
		"https://example.com:port/":     false,
		"ftp://example.com/":            false,
		"file:///etc/passwd":            false,
		"javascript:alert(1)":           false,
		"https://example.com/" + strings.Repeat("k", MaxJWKS): false,
	} {
		if err := CheckJWKS(address); (err == nil) != want {
			t.Errorf("%.60q: got %v, want it taken: %v", address, err, want)
		}
	}
}
