package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// requestPatience is how long a request may take, unless its target says otherwise.
const requestPatience = 30 * time.Second

// answerBytes is the most that is read of an answer.
const answerBytes = 16 << 20

// restError is an answer that is no success.
type restError struct {
	Status int
	Title  string `json:"title"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Errors []struct {
		Pointer   string `json:"pointer"`
		Parameter string `json:"parameter"`
		Code      string `json:"code"`
		Detail    string `json:"detail"`
	} `json:"errors"`
	RetryAfter int `json:"retry_after"` // seconds; 0: it does not say
}

// Error returns what happened and what to do, a line for each mistake.
func (e *restError) Error() string {
	s := fmt.Sprintf("%d %s", e.Status, first(e.Title, http.StatusText(e.Status)))
	if e.Code != "" {
		s += " (" + e.Code + ")"
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	for _, f := range e.Errors {
		s += "\n  " + first(f.Pointer, f.Parameter, "/") + ": " + f.Code
		if f.Detail != "" {
			s += ": " + f.Detail
		}
	}
	return printable(s)
}

// unknown reports whether a request that failed so may have been carried out.
func unknown(err error) bool {
	var e *restError
	if errors.As(err, &e) {
		return e.Status >= 500
	}
	return err != nil && !errors.Is(err, syscall.ECONNREFUSED)
}

// call makes one request. in is sent as JSON if it is not nil; the answer is returned as it came.
func (t target) call(ctx context.Context, method, path string, in any, header http.Header) ([]byte, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	patience := t.patience
	if patience == 0 {
		patience = requestPatience
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all := make(http.Header)
	maps.Copy(all, header)
	if in != nil {
		all.Set("Content-Type", "application/json")
	}
	return t.readAll(ctx, method, path, body, -1, all)
}

// readAll makes a request that takes as long as the context lets it, and returns its answer.
func (t target) readAll(ctx context.Context, method, path string, body io.Reader, size int64, header http.Header) ([]byte, error) {
	resp, err := t.open(ctx, method, path, body, size, header)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return b, nil
}

// open makes a request whose answer is to be read. size is how many bytes the body has; -1: that need not be known. The caller closes the answer's body. What is
// no success is a *restError.
func (t target) open(ctx context.Context, method, path string, body io.Reader, size int64, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, t.url+path, body)
	if err != nil {
		return nil, usageError{err}
	}
	if size >= 0 {
		req.ContentLength = size
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Authorization", "Bearer "+t.bearer)
	req.Header.Set("User-Agent", "carillon-cli")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("no server answers at %s; is \"carillon serve\" running? %w", t.url, err)
		}
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	e := &restError{}
	_ = json.Unmarshal(b, e) // what is no problem document has its status
	e.Status = resp.StatusCode
	return nil, e
}

// pages walks a list, page by page, and hands on each item under the name that the list has. The path may have a query.
func (t target) pages(ctx context.Context, path, name string, each func(item json.RawMessage) error) error {
	cursor := ""
	first := path + "?limit=100"
	if strings.Contains(path, "?") {
		first = path + "&limit=100"
	}
	for {
		at := first
		if cursor != "" {
			at += "&cursor=" + url.QueryEscape(cursor)
		}
		b, err := t.call(ctx, http.MethodGet, at, nil, nil)
		if err != nil {
			return err
		}
		var page map[string]json.RawMessage
		var items []json.RawMessage
		if err := json.Unmarshal(b, &page); err != nil {
			return fmt.Errorf("read the list: %w", err)
		}
		if err := json.Unmarshal(page[name], &items); err != nil {
			return fmt.Errorf("read the list: %w", err)
		}
		for _, item := range items {
			if err := each(item); err != nil {
				return err
			}
		}
		cursor = ""
		if next, ok := page["next_cursor"]; ok {
			if err := json.Unmarshal(next, &cursor); err != nil {
				return fmt.Errorf("read the list: %w", err)
			}
		}
		if cursor == "" {
			return nil
		}
	}
}

// printable escapes what could steer a terminal: control characters of what others wrote, line breaks and tabs apart.
func printable(s string) string {
	if strings.IndexFunc(s, steers) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if steers(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// steers reports whether the character is a control character, or one that turns the direction of writing.
func steers(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20 || r >= 0x7f && r < 0xa0:
		return true
	}
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}
