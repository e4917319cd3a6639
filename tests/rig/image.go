package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// importTimeout bounds one image's import into one node: seconds for the largest
// test images, longer while containerd starts.
const importTimeout = 2 * time.Minute

// sharedLibraries adds to files what their programs load, at the same paths.
func sharedLibraries(files map[string]string) (map[string]string, error) {
	all := map[string]string{}
	for target, source := range files {
		all[target] = source
		program, err := elf.Open(source)
		if err != nil {
			continue // no program: nothing to load
		}
		program.Close()
		out, err := exec.Command("ldd", source).CombinedOutput()
		if err != nil {
			if strings.Contains(string(out), "not a dynamic executable") || strings.Contains(string(out), "statically linked") {
				continue
			}
			return nil, fmt.Errorf("ldd %s: %w: %s", source, err, out)
		}
		for _, field := range strings.Fields(string(out)) {
			if strings.HasPrefix(field, "/") {
				all[field] = field
			}
		}
	}
	return all, nil
}

// writeImage makes an image of programs, the libraries they load and other
// files, in the archive format of `docker save`.
func writeImage(out io.Writer, name string, files map[string]string, entrypoint []string) error {
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, dir := range []string{"tmp/", "etc/", "bin/"} {
		mode := int64(0o755)
		if dir == "tmp/" {
			mode = 0o1777
		}
		if err := tw.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: mode}); err != nil {
			return err
		}
	}
	libraries, err := sharedLibraries(files)
	if err != nil {
		return err
	}
	for target, source := range libraries {
		data, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		if err := addFile(tw, strings.TrimPrefix(target, "/"), data, 0o755); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(layer.Bytes()))
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": entrypoint, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + sum}},
	})
	if err != nil {
		return err
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]map[string]any{{
		"Config": configName, "RepoTags": []string{name}, "Layers": []string{sum + "/layer.tar"},
	}})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(out)
	for _, f := range []struct {
		name string
		data []byte
	}{{configName, config}, {sum + "/layer.tar", layer.Bytes()}, {"manifest.json", manifest}} {
		if err := addFile(archive, f.name, f.data, 0o644); err != nil {
			return err
		}
	}
	return archive.Close()
}

func addFile(w *tar.Writer, name string, data []byte, mode int64) error {
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// loadImage imports `name` into one node's containerd.
func loadImage(n *Node, name string, files map[string]string, entrypoint []string) error {
	archive := n.path("image.tar")
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer os.Remove(archive)
	if err := writeImage(f, name, files, entrypoint); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	pid, err := nodePID(n)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), importTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "nsenter", "--mount", "--target", fmt.Sprint(pid),
		"ctr", "--address", containerdSocket, "--namespace", "k8s.io", "images", "import", archive).CombinedOutput()
	if err != nil {
		return fmt.Errorf("importing %s: %w: %s", name, err, out)
	}
	return nil
}
